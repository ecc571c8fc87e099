"""Who is this? The nearest gallery faces of each query, accepted or rejected at a threshold."""

from facenet.commands.search import main

if __name__ == "__main__":
    main()
