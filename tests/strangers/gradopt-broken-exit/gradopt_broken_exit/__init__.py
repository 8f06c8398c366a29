"""It ends the interpreter that imports it."""

raise SystemExit("no licence found")
