/*
 * Preloaded into a platform under test: writes down every change of the files below CRASH_ROOT and every sync of them, so that the harness can say
 * what a disk would hold had the power gone; and shifts the time of day by what CRASH_CONTROL says. See disk.ts for what becomes of the log.
 *
 * A record is written before its change is made, under one lock, so that the order of the log is that of the changes. A sync is written down when it
 * has ended, with the number of records that there were when it began. Nothing is synced in truth: that takes a random while instead.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPENED, WRITTEN, TRUNCATED, CREATED, RENAMED, UNLINKED, SYNCED, DIRECTORY_SYNCED };

struct record {
  uint32_t kind;
  uint32_t path_length;
  uint64_t inode;
  uint64_t number; /* an offset, a size, or how many records there were */
  uint64_t length; /* of what follows the path */
};

#define FILES_MAX 65536
#define SYNC_MICROSECONDS_MAX 2500

static char root[PATH_MAX];
static size_t root_length;
static int log_file = -1;
static volatile int64_t *shift_ms;
static uint64_t records;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Inodes of what is open below the root, by descriptor; 0 is none. */
static uint64_t inodes[FILES_MAX];
static unsigned char is_directory[FILES_MAX];

#define REAL(result, name, ...) \
  static result (*real_##name)(__VA_ARGS__); \
  if (real_##name == NULL) real_##name = dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
  const char *given_root = getenv("CRASH_ROOT"), *given_log = getenv("CRASH_LOG"), *control = getenv("CRASH_CONTROL");
  if (control != NULL) {
    int file = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0);
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) shift_ms = page;
    if (file >= 0) syscall(SYS_close, file);
  }
  if (given_root == NULL || given_log == NULL) return;
  snprintf(root, sizeof root, "%s/", given_root);
  root_length = strlen(root);
  log_file = (int)syscall(SYS_openat, AT_FDCWD, given_log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static int is_below(const char *path) {
  if (log_file < 0 || path == NULL || strncmp(path, root, root_length - 1) != 0) return 0;
  return path[root_length - 1] == '/' || path[root_length - 1] == 0;
}

/* The lock must be held. */
static void note(uint32_t kind, uint64_t inode, uint64_t number, const char *path, const struct iovec *parts, int count) {
  struct record record = {.kind = kind, .inode = inode, .number = number};
  struct iovec all[IOV_MAX];
  record.path_length = path == NULL ? 0 : (uint32_t)strlen(path);
  all[0] = (struct iovec){&record, sizeof record};
  all[1] = (struct iovec){(void *)path, record.path_length};
  for (int part = 0; part < count; part++) {
    all[part + 2] = parts[part];
    record.length += parts[part].iov_len;
  }
  if (syscall(SYS_writev, log_file, all, count + 2) < 0) abort();
  records++;
}

static int opened(int file, const char *path, int created, int truncated) {
  struct stat found;
  if (file < 0 || file >= FILES_MAX || fstat(file, &found) != 0) return file;
  inodes[file] = found.st_ino;
  is_directory[file] = S_ISDIR(found.st_mode) ? 1 : 0;
  if (is_directory[file]) return file;
  note(created ? CREATED : OPENED, found.st_ino, 0, path, NULL, 0);
  if (truncated && !created) note(TRUNCATED, found.st_ino, 0, NULL, NULL, 0);
  return file;
}

static int open_noted(int at, const char *path, int flags, mode_t mode) {
  if (!is_below(path)) return (int)syscall(SYS_openat, at, path, flags, mode);
  pthread_mutex_lock(&lock);
  int existed = access(path, F_OK) == 0;
  int file = (int)syscall(SYS_openat, at, path, flags, mode);
  int error = errno;
  opened(file, path, !existed && (flags & O_CREAT), flags & O_TRUNC);
  pthread_mutex_unlock(&lock);
  errno = error;
  return file;
}

#define MODE_OF(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest; \
    va_start(rest, flags); \
    mode = va_arg(rest, mode_t); \
    va_end(rest); \
  }

int open(const char *path, int flags, ...) { MODE_OF(flags) return open_noted(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return open_noted(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags) return open_noted(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags) return open_noted(at, path, flags, mode); }

int close(int file) {
  if (file >= 0 && file < FILES_MAX && inodes[file] != 0) {
    pthread_mutex_lock(&lock);
    inodes[file] = 0;
    pthread_mutex_unlock(&lock);
  }
  return (int)syscall(SYS_close, file);
}

/* Descriptors are also closed where nothing of this is asked, and then used for something else. */
static int is_same(int file) {
  struct stat found;
  return file >= 0 && file < FILES_MAX && inodes[file] != 0 && fstat(file, &found) == 0 && found.st_ino == inodes[file] &&
         (S_ISDIR(found.st_mode) ? 1 : 0) == is_directory[file] && (S_ISREG(found.st_mode) || is_directory[file]);
}

static int is_noted(int file) { return is_same(file) && !is_directory[file]; }

static ssize_t write_noted(int file, const struct iovec *parts, int count, off_t offset) {
  int at_place = offset >= 0;
  if (!is_noted(file))
    return at_place ? syscall(SYS_pwritev, file, parts, count, offset, 0) : syscall(SYS_writev, file, parts, count);
  pthread_mutex_lock(&lock);
  if (!at_place) {
    struct stat found;
    int appends = fcntl(file, F_GETFL) & O_APPEND;
    offset = appends && fstat(file, &found) == 0 ? found.st_size : lseek(file, 0, SEEK_CUR);
  }
  note(WRITTEN, inodes[file], (uint64_t)offset, NULL, parts, count > IOV_MAX - 2 ? IOV_MAX - 2 : count);
  ssize_t written =
      at_place ? syscall(SYS_pwritev, file, parts, count, offset, 0) : syscall(SYS_writev, file, parts, count);
  pthread_mutex_unlock(&lock);
  return written;
}

ssize_t write(int file, const void *bytes, size_t length) {
  if (!is_noted(file)) return syscall(SYS_write, file, bytes, length);
  struct iovec part = {(void *)bytes, length};
  return write_noted(file, &part, 1, -1);
}
ssize_t pwrite64(int file, const void *bytes, size_t length, off_t offset) {
  struct iovec part = {(void *)bytes, length};
  return write_noted(file, &part, 1, offset);
}
ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) { return pwrite64(file, bytes, length, offset); }
ssize_t writev(int file, const struct iovec *parts, int count) { return write_noted(file, parts, count, -1); }
ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset) {
  return write_noted(file, parts, count, offset);
}
ssize_t pwritev64(int file, const struct iovec *parts, int count, off_t offset) {
  return write_noted(file, parts, count, offset);
}

int ftruncate64(int file, off_t size) {
  if (!is_noted(file)) return (int)syscall(SYS_ftruncate, file, size);
  pthread_mutex_lock(&lock);
  note(TRUNCATED, inodes[file], (uint64_t)size, NULL, NULL, 0);
  int result = (int)syscall(SYS_ftruncate, file, size);
  pthread_mutex_unlock(&lock);
  return result;
}
int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

int rename(const char *from, const char *to) {
  if (!is_below(to)) return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
  struct iovec part = {(void *)to, strlen(to)};
  pthread_mutex_lock(&lock);
  note(RENAMED, 0, 0, from, &part, 1);
  int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
  pthread_mutex_unlock(&lock);
  return result;
}

int unlink(const char *path) {
  if (!is_below(path)) return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  pthread_mutex_lock(&lock);
  note(UNLINKED, 0, 0, path, NULL, 0);
  int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  pthread_mutex_unlock(&lock);
  return result;
}

static int sync_noted(int file, long call) {
  if (!is_same(file)) return (int)syscall(call, file);
  char link[64], path[PATH_MAX];
  pthread_mutex_lock(&lock);
  uint64_t inode = inodes[file], before = records;
  int directory = is_directory[file];
  pthread_mutex_unlock(&lock);
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  path[length < 0 ? 0 : length] = 0;
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  usleep((useconds_t)(now.tv_nsec / 1000 % SYNC_MICROSECONDS_MAX));
  pthread_mutex_lock(&lock);
  note(directory ? DIRECTORY_SYNCED : SYNCED, inode, before, path, NULL, 0);
  pthread_mutex_unlock(&lock);
  return 0;
}
int fsync(int file) { return sync_noted(file, SYS_fsync); }
int fdatasync(int file) { return sync_noted(file, SYS_fdatasync); }

int clock_gettime(clockid_t clock, struct timespec *time) {
  REAL(int, clock_gettime, clockid_t, struct timespec *);
  int result = real_clock_gettime(clock, time);
  if (result != 0 || shift_ms == NULL || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
  int64_t nanoseconds = time->tv_nsec + *shift_ms % 1000 * 1000000;
  time->tv_sec += *shift_ms / 1000 + nanoseconds / 1000000000;
  time->tv_nsec = nanoseconds % 1000000000;
  if (time->tv_nsec < 0) {
    time->tv_sec--;
    time->tv_nsec += 1000000000;
  }
  return result;
}

int gettimeofday(struct timeval *time, void *zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}
