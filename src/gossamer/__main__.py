"""`python -m gossamer` is the command `gossamer`."""

from .cli import main

if __name__ == "__main__":
    main()
