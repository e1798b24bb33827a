"""`python -m replication.cli`: the same as `replicate`."""

from replication.cli.app import main

if __name__ == "__main__":
    main()
