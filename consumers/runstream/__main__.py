"""`python -m runstream` is the command `runstream`."""

from runstream.service.main import main

if __name__ == "__main__":
    main()
