"""No tool at all: the battery itself has to pass."""

from battery import Tool, run_battery

if __name__ == "__main__":
    run_battery(Tool())
