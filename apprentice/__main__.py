"""`python -m apprentice`."""

from apprentice.cli import entry

if __name__ == "__main__":
    entry()
