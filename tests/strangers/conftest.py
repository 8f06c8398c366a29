"""These are source trees of other people's distributions, half of them broken: pytest must not import them."""

collect_ignore_glob = ["*"]
