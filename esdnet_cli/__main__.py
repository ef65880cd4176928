from esdnet_cli.cli import cli

cli(prog_name="esdnet")
