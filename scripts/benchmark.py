"""Measure a part of the library against named peers and the physical floor, interleaved in one process."""

from facenet.commands.benchmark import main

if __name__ == "__main__":
    main()
