"""``python -m cli`` is ``mailcordon``."""

from cli.main import main

main(prog_name="mailcordon")
