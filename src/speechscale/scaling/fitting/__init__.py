"""From runs to the constants of a law: starts, refinement, bootstrap, profiles, every form of law."""
