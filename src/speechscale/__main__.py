"""`python -m speechscale` is the `speechscale` command."""

from speechscale.cli import main

if __name__ == "__main__":
    main()
