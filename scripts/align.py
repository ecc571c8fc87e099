"""The same as ``facenet align``, for a clone."""

from facenet.commands.align import main

if __name__ == "__main__":
    main()
