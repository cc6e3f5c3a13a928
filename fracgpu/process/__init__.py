"""What every service process needs to run: settings, logging, serving HTTP, starting and stopping."""
