"""Report: runs.csv + laws.json + samples -> one self-contained, offline HTML file. No torch."""
