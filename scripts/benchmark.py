"""The same as ``facenet benchmark``, for a clone."""

from facenet.commands.benchmark import main

if __name__ == "__main__":
    main()
