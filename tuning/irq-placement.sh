#!/bin/sh
# Puts packet processing of a NIC on the cores of the shards: queue i on core FIRST + i, for receiving and sending.
# Usage: irq-placement.sh INTERFACE FIRST_CORE SHARDS      for example: irq-placement.sh eth0 1 7
# Run as root, after the interface is up. Core 0 is left to the system; pair it with `server.cores = [1, 2, …]`.
set -eu

interface=${1:?interface}
first=${2:?first core}
shards=${3:?number of shards}

# irqbalance would move the interrupts away again.
if command -v systemctl >/dev/null 2>&1; then
    systemctl stop irqbalance 2>/dev/null || true
fi

# As many queues as shards: then a connection's packets are processed on one core only. A NIC with fewer queues
# refuses; the loops below then use what it has.
ethtool -L "$interface" combined "$shards" 2>/dev/null || echo "$interface: number of queues not changed" >&2

# Connections are mostly idle: a few microseconds of waiting save many interrupts.
ethtool -C "$interface" adaptive-rx on 2>/dev/null || ethtool -C "$interface" rx-usecs 30 2>/dev/null ||
    echo "$interface: interrupt coalescing not changed" >&2

# Interrupt i on core i: softirq runs where the interrupt does, next to the shard that reads the data.
core=$first
for irq in $(ls "/sys/class/net/$interface/device/msi_irqs" 2>/dev/null); do
    # Interrupts without a queue (link state, management) stay where they are.
    grep -q "^ *$irq:.*$interface.*[0-9]" /proc/interrupts || continue
    echo "$core" >"/proc/irq/$irq/smp_affinity_list"
    core=$((core + 1))
    [ "$core" -lt $((first + shards)) ] || core=$first
done

# A bit mask as the kernel writes it: groups of 32 bits, the highest first.
mask() {
    high=$(($1 / 32))
    printf '%x' $((1 << ($1 % 32)))
    while [ "$high" -gt 0 ]; do
        printf ',00000000'
        high=$((high - 1))
    done
}

# Transmit queue i from core i: no two cores take one queue's lock.
core=$first
for queue in "/sys/class/net/$interface/queues"/tx-*; do
    [ -e "$queue/xps_cpus" ] || continue
    mask "$core" >"$queue/xps_cpus" 2>/dev/null || true
    core=$((core + 1))
    [ "$core" -lt $((first + shards)) ] || core=$first
done
