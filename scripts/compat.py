"""The same as ``facenet compat``, for a clone."""

from facenet.commands.compat import main

if __name__ == "__main__":
    main()
