"""The same as ``facenet push``, for a clone."""

from facenet.commands.push import main

if __name__ == "__main__":
    main()
