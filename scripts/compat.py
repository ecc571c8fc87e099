"""May a new encoder join the old one's gallery? Four cells, gain, tax, flips and a gate: exit 0 passes, 4 does not."""

from facenet.commands.compat import main

if __name__ == "__main__":
    main()
