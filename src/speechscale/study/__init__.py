"""Study: one TOML file -> resolved parts -> named steps with records -> runs.csv, laws.json, report.html."""
