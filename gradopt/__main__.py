"""`python -m gradopt`."""

from gradopt.cli import main

if __name__ == "__main__":
    main()
