"""`python -m hpcproxy` is the program `hpcproxy`."""

from hpcproxy.cli import main

main()
