"""The same as ``facenet cluster``, for a clone."""

from facenet.commands.cluster import main

if __name__ == "__main__":
    main()
