"""What people look at: tables, figures and documents about what was found."""
