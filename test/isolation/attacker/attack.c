// Attacks that need system calls which no language offers, one by each first argument. Says "took: what" and ends with 0, or
// "refused: step: error" and ends with 1. None of them changes anything of the machine where it succeeds.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <sys/io.h>
#endif

enum { NOBODY = 65534, FSOPEN = 430, OPEN_TREE = 428, CLONE3 = 435, PIDFD_OPEN = 434, PIDFD_GETFD = 438, IO_URING_SETUP = 425 };

static int took(const char *format, ...) {
  va_list rest;
  va_start(rest, format);
  printf("took: ");
  vprintf(format, rest);
  printf("\n");
  fflush(stdout);
  _exit(0);
}

static int refused(const char *step) {
  const char *name = strerrorname_np(errno);
  printf("refused: %s: %s\n", step, name == NULL ? "-" : name);
  fflush(stdout);
  _exit(1);
}

static const char *argument(char **arguments, int index) {
  for (int at = 0; at <= index; at++)
    if (arguments[at] == NULL) {
      printf("broken: argument %d is missing\n", index);
      exit(2);
    }
  return arguments[index];
}

/** Ends with what a child did that may change its own namespaces. */
static void in_child(void (*attack)(char **), char **arguments) {
  fflush(stdout);
  pid_t child = fork();
  if (child < 0) refused("fork");
  if (child == 0) {
    attack(arguments);
    _exit(2);
  }
  int status;
  waitpid(child, &status, 0);
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
}

// Mounts, roots, namespaces

static void attack_mount(char **arguments) {
  const char *folder = argument(arguments, 0);
  mkdir(folder, 0755);
  if (mount("tmpfs", folder, "tmpfs", 0, "size=4k") != 0) refused("mount");
  umount2(folder, MNT_DETACH);
  took("a file system was mounted");
}

static void attack_mount_cgroup(char **arguments) {
  const char *folder = argument(arguments, 0);
  mkdir(folder, 0755);
  if (mount("cgroup", folder, "cgroup2", 0, NULL) != 0) refused("mount");
  umount2(folder, MNT_DETACH);
  took("the machine's cgroups were mounted");
}

static void attack_fsopen(char **arguments) {
  (void)arguments;
  if (syscall(FSOPEN, "tmpfs", 0) < 0) refused("fsopen");
  took("a file system was opened");
}

static void attack_open_tree(char **arguments) {
  (void)arguments;
  if (syscall(OPEN_TREE, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */) < 0) refused("open_tree");
  took("a copy of the root was made");
}

static void attack_pivot_root(char **arguments) {
  const char *folder = argument(arguments, 0);
  char old[4096];
  snprintf(old, sizeof old, "%s/old", folder);
  mkdir(folder, 0755);
  if (unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0) mount("tmpfs", folder, "tmpfs", 0, NULL);
  mkdir(old, 0755);
  if (syscall(SYS_pivot_root, folder, old) != 0) refused("pivot_root");
  took("the root was changed");
}

static void attack_chroot(char **arguments) {
  if (chroot(argument(arguments, 0)) != 0) refused("chroot");
  took("the root was changed");
}

static void attack_unshare(char **arguments) {
  if (unshare(atoi(argument(arguments, 0))) != 0) refused("unshare");
  took("a new namespace");
}

static void attack_clone(char **arguments) {
  (void)arguments;
  long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
  if (child < 0) refused("clone");
  if (child == 0) _exit(0);
  waitpid((pid_t)child, NULL, 0);
  took("a new namespace");
}

static void attack_clone3(char **arguments) {
  (void)arguments;
  struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls; } request = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
  long child = syscall(CLONE3, &request, sizeof request);
  if (child < 0) refused("clone3");
  if (child == 0) _exit(0);
  waitpid((pid_t)child, NULL, 0);
  took("a new namespace");
}

static void attack_setns(char **arguments) {
  int file = open(argument(arguments, 0), O_RDONLY);
  if (file < 0) refused("open");
  if (setns(file, 0) != 0) refused("setns");
  took("another's namespace");
}

static void attack_setns_own(char **arguments) {
  (void)arguments;
  int file = open("/proc/self/ns/uts", O_RDONLY);
  if (file < 0) refused("open");
  if (setns(file, 0) != 0) refused("setns");
  took("a namespace was entered");
}

static void attack_file_handle(char **arguments) {
  struct { struct file_handle handle; unsigned char bytes[128]; } room = {.handle = {.handle_bytes = 128}};
  int id, folder = open(argument(arguments, 1), O_RDONLY | O_DIRECTORY);
  if (name_to_handle_at(AT_FDCWD, argument(arguments, 0), &room.handle, &id, 0) != 0) refused("name_to_handle_at");
  if (open_by_handle_at(folder, &room.handle, O_RDONLY) < 0) refused("open_by_handle_at");
  took("a file was opened without its path");
}

// Others' processes

static void attack_ptrace(char **arguments) {
  pid_t pid = atoi(argument(arguments, 0));
  if (ptrace(PTRACE_ATTACH, pid, NULL, NULL) != 0) refused("ptrace");
  waitpid(pid, NULL, __WALL);
  ptrace(PTRACE_DETACH, pid, NULL, NULL);
  took("it was stopped and let go");
}

static void attack_ptrace_own(char **arguments) {
  (void)arguments;
  if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) refused("ptrace");
  took("a process is traced");
}

static void attack_vm_read(char **arguments) {
  char text[128] = "";
  struct iovec local = {text, sizeof text - 1}, remote = {(void *)strtoull(argument(arguments, 1), NULL, 0), sizeof text - 1};
  if (process_vm_readv(atoi(argument(arguments, 0)), &local, 1, &remote, 1, 0) < 0) refused("process_vm_readv");
  took("%s", text);
}

static void attack_memory(char **arguments) {
  char path[64], text[128] = "";
  snprintf(path, sizeof path, "/proc/%s/mem", argument(arguments, 0));
  int file = open(path, O_RDWR);
  if (file < 0) refused("open");
  if (pread(file, text, sizeof text - 1, (off_t)strtoull(argument(arguments, 1), NULL, 0)) < 0) refused("read");
  took("%s", text);
}

static void attack_pidfd_getfd(char **arguments) {
  char text[128] = "";
  int process = (int)syscall(PIDFD_OPEN, atoi(argument(arguments, 0)), 0);
  if (process < 0) refused("pidfd_open");
  int file = (int)syscall(PIDFD_GETFD, process, atoi(argument(arguments, 1)), 0);
  if (file < 0) refused("pidfd_getfd");
  if (pread(file, text, sizeof text - 1, 0) < 0) refused("read");
  took("%s", text);
}

static void attack_pidfd_getfd_own(char **arguments) {
  (void)arguments;
  int process = (int)syscall(PIDFD_OPEN, getpid(), 0);
  if (process < 0) refused("pidfd_open");
  if (syscall(PIDFD_GETFD, process, 1, 0) < 0) refused("pidfd_getfd");
  took("a descriptor was copied");
}

static void attack_signal(char **arguments) {
  if (kill(atoi(argument(arguments, 0)), SIGUSR1) != 0) refused("kill");
  took("a signal was sent");
}

static void attack_limits(char **arguments) {
  struct rlimit limit;
  if (prlimit(atoi(argument(arguments, 0)), RLIMIT_CORE, NULL, &limit) != 0 || prlimit(atoi(argument(arguments, 0)), RLIMIT_CORE, &limit, NULL) != 0)
    refused("prlimit");
  took("another's limits were set");
}

// Rights

/** Becomes nobody first where it is root, as it would be of no use else. */
static void execute_as_nobody(const char *program) {
  if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0)) refused("setresuid");
  execl(program, program, "who", NULL);
  refused("execve");
}

static void attack_setuid_own(char **arguments) {
  char path[4096], *buffer = malloc(8 << 20);
  snprintf(path, sizeof path, "%s/set-user-id", argument(arguments, 0));
  mkdir(argument(arguments, 0), 0755);
  int from = open("/proc/self/exe", O_RDONLY), to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
  ssize_t length = read(from, buffer, 8 << 20);
  if (to < 0 || write(to, buffer, (size_t)length) != length) refused("write");
  if (fchmod(to, 04755) != 0) refused("chmod");
  close(to);
  execute_as_nobody(path);
}

/** Executed as a set-user-id program by the attack before. */
static void attack_who(char **arguments) {
  (void)arguments;
  errno = EPERM;
  if (getuid() == geteuid()) refused("set-user-id");
  took("became user %d", (int)geteuid());
}

/** The machine's own set-user-id program, which waits for a password from a pipe; its user is then seen from outside. */
static void attack_setuid_system(char **arguments) {
  const char *program = argument(arguments, 0);
  int wait[2];
  if (pipe(wait) != 0) refused("pipe");
  pid_t child = fork();
  if (child == 0) {
    dup2(wait[0], 0);
    dup2(open("/dev/null", O_WRONLY), 1);
    dup2(1, 2);
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0)) _exit(3);
    execl(program, program, "root", NULL);
    _exit(4);
  }
  unsigned real = 0, effective = 0, highest = 0, lowest = 65535;
  for (int turn = 0; turn < 200; turn++) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", (int)child);
    FILE *status = fopen(path, "r");
    if (status == NULL) break;
    while (fgets(line, sizeof line, status) != NULL)
      if (sscanf(line, "Uid: %u %u", &real, &effective) == 2 && real == NOBODY) {
        if (effective > highest) highest = effective;
        if (effective < lowest) lowest = effective;
      }
    fclose(status);
    if (lowest == 0) break;
    usleep(2000);
  }
  kill(child, SIGKILL);
  close(wait[1]);
  errno = EPERM;
  if (lowest != 0) refused("set-user-id");
  took("it ran as root");
}

static void attack_become_root(char **arguments) {
  (void)arguments;
  if (setresuid(0, 0, 0) != 0) refused("setresuid");
  took("became root");
}

static void attack_capabilities(char **arguments) {
  (void)arguments;
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct sets[2] = {{0}};
  sets[0].effective = sets[0].permitted = 1u << CAP_SYS_ADMIN;
  if (syscall(SYS_capset, &header, sets) != 0) refused("capset");
  took("a capability");
}

static void attack_raise_limit(char **arguments) {
  (void)arguments;
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  // To as many as before.
  struct rlimit less = {limit.rlim_max - 1, limit.rlim_max - 1};
  setrlimit(RLIMIT_NOFILE, &less);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) refused("setrlimit");
  took("more open files");
}

static void attack_priority(char **arguments) {
  (void)arguments;
  if (setpriority(PRIO_PROCESS, 0, -5) != 0) refused("setpriority");
  took("before all others");
}

static void attack_real_time(char **arguments) {
  (void)arguments;
  struct sched_param parameters = {.sched_priority = 1};
  if (sched_setscheduler(0, SCHED_FIFO, &parameters) != 0) refused("sched_setscheduler");
  took("real time");
}

static void attack_oom_score(char **arguments) {
  (void)arguments;
  int file = open("/proc/self/oom_score_adj", O_WRONLY);
  if (file < 0) refused("open");
  if (write(file, "-500", 4) < 0) refused("write");
  took("is spared when memory is short");
}

static void attack_personality(char **arguments) {
  (void)arguments;
  if (personality(ADDR_NO_RANDOMIZE) == -1) refused("personality");
  took("addresses are no longer random");
}

// The kernel

static void attack_keyring(char **arguments) {
  (void)arguments;
  long key = syscall(SYS_add_key, "user", "koine-attack", "x", 1, -2 /* KEY_SPEC_PROCESS_KEYRING */);
  if (key < 0) refused("add_key");
  took("a key was kept");
}

static void attack_bpf(char **arguments) {
  (void)arguments;
  struct { uint32_t type, key, value, entries; char rest[112]; } map = {.type = 2, .key = 4, .value = 4, .entries = 1};
  if (syscall(SYS_bpf, 0, &map, sizeof map) < 0) refused("bpf");
  took("a map of the kernel");
}

static void attack_perf(char **arguments) {
  (void)arguments;
  struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event, .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1, .exclude_hv = 1};
  if (syscall(SYS_perf_event_open, &event, 0, -1, -1, 0) < 0) refused("perf_event_open");
  took("a counter");
}

static void attack_io_uring(char **arguments) {
  (void)arguments;
  char parameters[120] = {0};
  if (syscall(IO_URING_SETUP, 4, parameters) < 0) refused("io_uring_setup");
  took("a ring");
}

static void attack_userfaultfd(char **arguments) {
  (void)arguments;
  if (syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */) < 0) refused("userfaultfd");
  took("faults are handled");
}

static void attack_socket(char **arguments) {
  int made = socket(atoi(argument(arguments, 0)), atoi(argument(arguments, 1)), atoi(argument(arguments, 2)));
  if (made < 0) refused("socket");
  took("a socket");
}

static void attack_typing(char **arguments) {
  (void)arguments;
  int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) refused("posix_openpt");
  const char *path = ptsname(terminal);
  if (path == NULL) refused("ptsname");
  setsid();
  int side = open(path, O_RDWR);
  if (side < 0) refused("open");
  ioctl(side, TIOCSCTTY, 0);
  if (ioctl(side, TIOCSTI, "x") != 0) refused("TIOCSTI");
  took("a letter was typed");
}

static void attack_time(char **arguments) {
  (void)arguments;
  // What it sets is an estimate of the clock's error, to what it is.
  struct timex clock = {0};
  adjtimex(&clock);
  clock.modes = ADJ_ESTERROR;
  if (adjtimex(&clock) < 0) refused("adjtimex");
  took("the machine's clock");
}

static void attack_host_name(char **arguments) {
  (void)arguments;
  char name[256];
  gethostname(name, sizeof name);
  if (sethostname(name, strlen(name)) != 0) refused("sethostname");
  took("the machine's name");
}

static void attack_reboot(char **arguments) {
  (void)arguments;
  // There is no such command, which is said to those only who may give one.
  if (syscall(SYS_reboot, 0xfee1dead, 672274793, 0x1, NULL) != 0 && errno != EINVAL) refused("reboot");
  took("may reboot");
}

static void attack_module(char **arguments) {
  (void)arguments;
  char image[64] = "no module";
  if (syscall(SYS_init_module, image, sizeof image, "") != 0 && (errno == EPERM || errno == ENOSYS)) refused("init_module");
  took("may load modules");
}

static void attack_kernel_log(char **arguments) {
  (void)arguments;
  char text[64];
  // SYSLOG_ACTION_READ_ALL
  if (syscall(SYS_syslog, 3, text, sizeof text) < 0) refused("syslog");
  took("the kernel's log");
}

static void attack_device(char **arguments) {
  char path[4096];
  mkdir(argument(arguments, 0), 0755);
  snprintf(path, sizeof path, "%s/device", argument(arguments, 0));
  if (mknod(path, S_IFCHR | 0666, makedev(1, 5)) != 0) refused("mknod");
  int file = open(path, O_RDONLY);
  unlink(path);
  if (file < 0) refused("open");
  took("a device was made and opened");
}

static void attack_ports(char **arguments) {
  (void)arguments;
#if defined(__x86_64__)
  if (ioperm(0x80, 1, 1) != 0) refused("ioperm");
#else
  errno = ENOSYS;
  refused("ioperm");
#endif
  took("the processor's ports");
}

static void attack_other_numbers(char **arguments) {
  (void)arguments;
#if defined(__x86_64__)
  // add_key by its number of 32 bits, which a filter for 64 bits does not know: with no arguments it fails where it is reached.
  long answer;
  __asm__ volatile("int $0x80" : "=a"(answer) : "a"(20L /* getpid */) : "memory", "r8", "r9", "r10", "r11");
  errno = answer < 0 ? (int)-answer : 0;
  if (answer != getpid()) refused("int 0x80");
#else
  errno = ENOSYS;
  refused("int 0x80");
#endif
  took("a call of 32 bits");
}

// Files, where there is no other language

static void attack_read(char **arguments) {
  char text[256] = "";
  int file = open(argument(arguments, 0), O_RDONLY);
  if (file < 0) refused("open");
  if (read(file, text, sizeof text - 1) < 0) refused("read");
  took("%s", text);
}

static void attack_list(char **arguments) {
  if (open(argument(arguments, 0), O_RDONLY | O_DIRECTORY) < 0) refused("open");
  took("a folder");
}

static void attack_create(char **arguments) {
  int file = open(argument(arguments, 0), O_WRONLY | O_CREAT | O_EXCL, 0644);
  if (file < 0) refused("open");
  unlink(argument(arguments, 0));
  took("a file was made");
}

/** The first that can be opened for writing; nothing is written. */
static void attack_open_one_of(char **arguments) {
  argument(arguments, 0);
  for (; *arguments != NULL; arguments++)
    if (open(*arguments, O_WRONLY) >= 0) took("%s", *arguments);
  refused("open");
}

static void attack_connect(char **arguments) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int is_abstract = strcmp(argument(arguments, 1), "true") == 0;
  const char *name = argument(arguments, 0);
  strncpy(address.sun_path + is_abstract, name, sizeof address.sun_path - 2);
  int client = socket(AF_UNIX, SOCK_STREAM, 0);
  if (client < 0) refused("socket");
  if (connect(client, (struct sockaddr *)&address, (socklen_t)(sizeof(sa_family_t) + strlen(name) + 1)) != 0) refused("connect");
  took("connected");
}

// What stands beside: a process of the machine that holds a secret, a file and sockets, and tells of signals.

static void told(int signal) {
  (void)signal;
  if (write(1, "hit\n", 4) < 0) _exit(1);
}

/** Arguments: the file with the secret, the path of a socket, an abstract name. */
static void bystand(char **arguments) {
  static char secret[128];
  int file = open(argument(arguments, 0), O_RDONLY);
  if (file < 0 || read(file, secret, sizeof secret - 1) < 0) refused("open");
  for (int which = 0; which < 2; which++) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = argument(arguments, 1 + which);
    strncpy(address.sun_path + which, name, sizeof address.sun_path - 2);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = (socklen_t)(sizeof(sa_family_t) + strlen(name) + 1);
    if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 64) != 0) refused("bind");
    if (which == 0) chmod(name, 0777);
  }
  signal(SIGUSR1, told);
  signal(SIGURG, told);
  printf("{\"pid\":%d,\"address\":\"%p\",\"descriptor\":%d}\n", (int)getpid(), (void *)secret, file);
  fflush(stdout);
  for (char byte;;) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (poll(&input, 1, -1) > 0 && read(0, &byte, 1) <= 0) _exit(0);
  }
}

static const struct { const char *name; void (*run)(char **); } attacks[] = {
    {"mount", attack_mount}, {"mount-cgroup", attack_mount_cgroup}, {"fsopen", attack_fsopen}, {"open-tree", attack_open_tree},
    {"pivot-root", attack_pivot_root}, {"chroot", attack_chroot}, {"unshare", attack_unshare}, {"clone", attack_clone}, {"clone3", attack_clone3},
    {"setns", attack_setns}, {"setns-own", attack_setns_own}, {"file-handle", attack_file_handle}, {"ptrace", attack_ptrace},
    {"ptrace-own", attack_ptrace_own}, {"vm-read", attack_vm_read}, {"memory", attack_memory}, {"pidfd-getfd", attack_pidfd_getfd},
    {"pidfd-getfd-own", attack_pidfd_getfd_own}, {"signal", attack_signal}, {"limits", attack_limits}, {"setuid-own", attack_setuid_own},
    {"who", attack_who}, {"setuid-system", attack_setuid_system}, {"become-root", attack_become_root}, {"capabilities", attack_capabilities},
    {"raise-limit", attack_raise_limit}, {"priority", attack_priority}, {"real-time", attack_real_time}, {"oom-score", attack_oom_score},
    {"personality", attack_personality}, {"keyring", attack_keyring}, {"bpf", attack_bpf}, {"perf", attack_perf}, {"io-uring", attack_io_uring},
    {"userfaultfd", attack_userfaultfd}, {"socket", attack_socket}, {"typing", attack_typing}, {"time", attack_time}, {"host-name", attack_host_name},
    {"reboot", attack_reboot}, {"module", attack_module}, {"kernel-log", attack_kernel_log}, {"device", attack_device}, {"ports", attack_ports},
    {"other-numbers", attack_other_numbers}, {"read", attack_read}, {"list", attack_list}, {"create", attack_create},
    {"open-one-of", attack_open_one_of}, {"connect", attack_connect},
};

int main(int count, char **arguments) {
  if (count > 1 && strcmp(arguments[1], "bystand") == 0) bystand(arguments + 2);
  for (size_t at = 0; count > 1 && at < sizeof attacks / sizeof *attacks; at++)
    if (strcmp(arguments[1], attacks[at].name) == 0) in_child(attacks[at].run, arguments + 2);
  printf("broken: there is no such attack\n");
  return 2;
}
