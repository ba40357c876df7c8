"""What goes in: raw releases, scans, case tables, few-label splits and the synthetic phantom."""
