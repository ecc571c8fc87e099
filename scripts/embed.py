"""The same as ``facenet embed``, for a clone."""

from facenet.commands.embed import main

if __name__ == "__main__":
    main()
