"""What goes in: raw releases, scans, case tables and few-label splits."""
