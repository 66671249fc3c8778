"""What sources share: reading labelled rows, arrays, tables, folders and recordings."""
