"""Git hosts: one port, its adapters for Gitea, GitHub and GitLab, and the webhooks that they send."""
