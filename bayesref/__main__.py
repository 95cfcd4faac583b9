"""`python -m bayesref`."""

from bayesref.cli.app import main

if __name__ == "__main__":
    main()
