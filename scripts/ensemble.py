"""The same as ``facenet ensemble``, for a clone."""

from facenet.commands.ensemble import main

if __name__ == "__main__":
    main()
