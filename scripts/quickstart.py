"""The same as ``facenet quickstart``, for a clone."""

from facenet.commands.quickstart import main

if __name__ == "__main__":
    main()
