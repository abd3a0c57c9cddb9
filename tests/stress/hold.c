/* Makes a rare race certain: holds the main thread 100 ms just before a call that waits.
 *
 * Preloaded (LD_PRELOAD) into a kernel whose environment names a folder, HOLD_FOLDER. When that folder holds a file
 * with the name of a call below, the main thread's next such call takes the file away, writes the file "held", waits
 * 100 ms whatever signals come, and goes on. Python has checked for signals by then: one that comes meanwhile is seen
 * by Python when the call returns.
 *
 * "epoll_wait" takes those only that would wait a second or longer.
 * "sigaction" holds a number: the main thread is held right after it has changed what SIGINT does so many times.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HOLD_NS 100000000L
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *path_of(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("HOLD_FOLDER"), name);
    return path;
}

static int in_main_thread(void) {
    return getenv("HOLD_FOLDER") != NULL && syscall(SYS_gettid) == getpid();
}

static void hold(void) {
    int saved = errno;
    struct timespec left = {0, HOLD_NS};
    int fd = open(path_of("held"), O_CREAT | O_WRONLY, 0600);
    if (fd >= 0)
        close(fd);
    while (syscall(SYS_nanosleep, &left, &left) == -1 && errno == EINTR)
        ;
    errno = saved;
}

static void hold_if_asked(const char *name) {
    int saved = errno;
    if (in_main_thread() && unlink(path_of(name)) == 0)
        hold();
    errno = saved;
}

int epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout) {
    if (timeout < 0 || timeout >= 1000)
        hold_if_asked("epoll_wait");
    return REAL(epoll_wait)(epfd, events, maxevents, timeout);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    /* A point in time may pass meanwhile; a minute does not. */
    hold_if_asked("clock_nanosleep");
    return REAL(clock_nanosleep)(clock, flags, until, left);
}

int sem_wait(sem_t *semaphore) {
    hold_if_asked("sem_wait");
    return REAL(sem_wait)(semaphore);
}

static int changes_to_go(void) {
    static int to_go = 0;
    FILE *file = fopen(path_of("sigaction"), "r");
    if (file != NULL) {
        if (fscanf(file, "%d", &to_go) != 1)
            to_go = 0;
        fclose(file);
        unlink(path_of("sigaction"));
    }
    return to_go > 0 ? to_go-- : 0;
}

int sigaction(int signum, const struct sigaction *action, struct sigaction *old) {
    int result = REAL(sigaction)(signum, action, old);
    int saved = errno;
    if (signum == SIGINT && action != NULL && in_main_thread() && changes_to_go() == 1)
        hold();
    errno = saved;
    return result;
}
