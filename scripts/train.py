"""Train an embedding network: data in; encoder/, checkpoints/, logs/ and metrics.json out."""

from facenet.commands.train import main

if __name__ == "__main__":
    main()
