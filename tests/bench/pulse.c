/* Datagrams at a steady rate, each answered by an echo, and how long each answer took.
 *
 *   pulse -r A_SECOND -d SECONDS -p PORT ADDRESS      asks
 *   pulse -e -p PORT                                  answers, until SIGTERM
 *
 * One sender has 16 sockets in turn, so 16 flows. What is asked carries its number; the answer to it counts whenever it
 * comes, up to a second after the last was sent. "begin" is printed first; at the end, by SIGTERM too, one line for each:
 * the monotonic clock when it was due, in nanoseconds, and the nanoseconds until its answer, or -1. Counted
 * from when it was due, so that a sender that is held up hides nothing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pace.h"

enum { SOCKETS = 16, RECEIVE_BUFFER = 1 << 20 };
static const double LAST_ANSWER = 1.0;

struct question {
    uint64_t number;
};

static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

static int open_socket(void) {
    int size = RECEIVE_BUFFER, sock = socket(AF_INET, SOCK_DGRAM, 0);
    if (sock < 0) fail("socket");
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    return sock;
}

static void echo(uint16_t port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)}, from;
    char data[64];
    int sock = open_socket();
    if (bind(sock, (struct sockaddr *)&at, sizeof at)) fail("bind");
    while (!stopped) {
        socklen_t size = sizeof from;
        ssize_t got = recvfrom(sock, data, sizeof data, 0, (struct sockaddr *)&from, &size);
        if (got >= 0) sendto(sock, data, (size_t)got, 0, (struct sockaddr *)&from, size);
        else if (errno != EINTR) fail("recvfrom");
    }
}

static void take_answers(struct pollfd *sockets, double until, const double *due, double *took, uint64_t count) {
    for (;;) {
        double left = until - now();
        struct timespec wait = {.tv_sec = (time_t)(left > 0 ? left : 0)};
        wait.tv_nsec = left > 0 ? (long)((left - (double)wait.tv_sec) * 1e9) : 0;
        if (ppoll(sockets, SOCKETS, &wait, NULL) <= 0) {
            if (stopped || now() >= until) return;
            continue;
        }
        for (int i = 0; i < SOCKETS; i++) {
            struct question answer;
            if (!(sockets[i].revents & POLLIN)) continue;
            while (recv(sockets[i].fd, &answer, sizeof answer, MSG_DONTWAIT) == sizeof answer)
                if (answer.number < count && took[answer.number] < 0)
                    took[answer.number] = now() - due[answer.number];
        }
    }
}

int main(int argc, char **argv) {
    double rate = 1000, seconds = 1;
    int port = 0, option;
    bool answers = false;
    while ((option = getopt(argc, argv, "r:d:p:e")) != -1) {
        if (option == 'r') rate = atof(optarg);
        else if (option == 'd') seconds = atof(optarg);
        else if (option == 'p') port = atoi(optarg);
        else if (option == 'e') answers = true;
        else return 2;
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    if (answers) {
        echo((uint16_t)port);
        return 0;
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    uint64_t count = (uint64_t)(rate * seconds), sent = 0;
    if (optind >= argc || inet_pton(AF_INET, argv[optind], &to.sin_addr) != 1 || !count) return 2;
    double *due = malloc(count * sizeof *due), *took = malloc(count * sizeof *took);
    struct pollfd sockets[SOCKETS];
    if (!due || !took) fail("malloc");
    for (int i = 0; i < SOCKETS; i++) {
        sockets[i] = (struct pollfd){.fd = open_socket(), .events = POLLIN};
        if (connect(sockets[i].fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
    }
    puts("begin");
    fflush(stdout);
    double start = now();
    for (; sent < count && !stopped; sent++) {
        struct question question = {.number = sent};
        due[sent] = start + (double)sent / rate;
        took[sent] = -1;
        take_answers(sockets, due[sent], due, took, sent);
        send(sockets[sent % SOCKETS].fd, &question, sizeof question, 0);
    }
    stopped = 0;
    take_answers(sockets, now() + LAST_ANSWER, due, took, sent);
    for (uint64_t i = 0; i < sent; i++)
        printf("%.0f %.0f\n", due[i] * 1e9, took[i] < 0 ? -1.0 : took[i] * 1e9);
    return 0;
}
