"""`python -m runstream.service` is the command `runstream`."""

from runstream.service.main import main

main()
