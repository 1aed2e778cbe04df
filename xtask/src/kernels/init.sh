#!/bin/busybox sh
# The first process of a guest: loads modules, runs tests, powers off. What they say goes to the console as messages
# of the kernel, which writes them without interrupts: a terminal on an emulated serial port seemed to stop for ever once.
/bin/busybox --install -s /bin
export PATH=/bin CI=1 HOME=/tmp
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mount -t tmpfs none /tmp
mkdir -p /run
mount -t tmpfs none /run
say() {
    while IFS= read -r line; do
        echo "<1>guest: ${line:0:900}" >/dev/kmsg
    done
}
for module in /modules/*.ko; do
    insmod "$module" || echo "== module refused: $module" | say
done
ip link set lo up
uptime_now() { cut -d ' ' -f 1 /proc/uptime; }
# Where the threads of a test wait that says nothing for long.
watch() {
    said=0
    silent=0
    while sleep 10; do
        now=$(wc -c </tmp/said)
        silent=$((now == said ? silent + 10 : 0))
        said=$now
        [ $silent -eq 200 ] || continue
        for task in $(ls -d /proc/[0-9]*/task/*); do
            case $(readlink "${task%/task/*}/exe") in /tests/*) ;; *) continue ;; esac
            echo "$(cat "$task/comm") waits in: $(grep -o '[a-z][a-z0-9_.]*+' "$task/stack" | tr '\n' ' ')" | say
        done
    done
}
touch /tmp/said
watch &
for test in /tests/*; do
    echo "== begin ${test##*/} $(uptime_now)" | say
    { "$test" --test-threads=1 --show-output "$@" 2>&1; echo $? >/tmp/code; } | tee -a /tmp/said | say
    echo "== end ${test##*/} $(cat /tmp/code) $(uptime_now)" | say
done
echo "== done" | say
sleep 1
poweroff -f
