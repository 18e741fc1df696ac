"""Write-ahead log of accepted rows."""
