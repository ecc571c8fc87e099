"""An encoder as an ONNX file, in float32 and, if wanted, in 8 bits."""

from facenet.commands.export import main

if __name__ == "__main__":
    main()
