"""Are these two photos one person?"""

from facenet.commands.compare import main

if __name__ == "__main__":
    main()
