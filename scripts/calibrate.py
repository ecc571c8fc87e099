"""The same as ``facenet calibrate``, for a clone."""

from facenet.commands.calibrate import main

if __name__ == "__main__":
    main()
