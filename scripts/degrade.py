"""Robustness of an encoder: verification with images made worse by known amounts, as a table and a plot."""

from facenet.commands.degrade import main

if __name__ == "__main__":
    main()
