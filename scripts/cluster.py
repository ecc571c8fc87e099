"""Group faces by identity, or add new faces to known clusters: clusters.csv, scores, contact sheets."""

from facenet.commands.cluster import main

if __name__ == "__main__":
    main()
