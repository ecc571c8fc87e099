"""Thresholds of an encoder from one's own faces: a folder with a folder of images for each person."""

from facenet.commands.calibrate import main

if __name__ == "__main__":
    main()
