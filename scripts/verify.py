"""The same as ``facenet verify``, for a clone."""

from facenet.commands.verify import main

if __name__ == "__main__":
    main()
