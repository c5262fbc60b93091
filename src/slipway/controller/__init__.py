"""What runs beside Ansible, on the machine from which hosts are managed."""
