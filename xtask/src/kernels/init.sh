#!/bin/busybox sh
# The first and only process of a guest: loads modules, runs tests, powers off. Results go to the second serial
# port, apart from the kernel's own messages.
/bin/busybox --install -s /bin
export PATH=/bin CI=1 HOME=/tmp
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mount -t tmpfs none /tmp
mkdir -p /run
mount -t tmpfs none /run
exec >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 -onlcr 2>/dev/null
for module in /modules/*.ko; do
    insmod "$module" || echo "== module refused: $module"
done
ip link set lo up
uptime_now() { cut -d ' ' -f 1 /proc/uptime; }
for test in /tests/*; do
    echo "== begin ${test##*/} $(uptime_now)"
    "$test" --test-threads=1 --show-output "$@"
    echo "== end ${test##*/} $? $(uptime_now)"
done
echo "== done"
sync
poweroff -f
