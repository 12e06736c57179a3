/* Sends small UDP datagrams over many flows, flat out or at a rate, and says how many.
 *
 *   blast -p PORT [-f FLOWS] [-l PAYLOAD] [-s SOURCE_PORT] [-r PACKETS_A_SECOND] [-b BURST]
 *         (-n COUNT | [-w WARM_SECONDS] -d SECONDS) ADDRESS...
 *
 * Flow i has the source port SOURCE_PORT + i and goes to address i modulo their number. Datagrams leave in
 * bursts of 16 (at most 64) by sendmmsg, one burst a flow in turn. "begin" is printed after the warm-up, and at the end
 * "end SENT SECONDS", both for the time in between alone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pace.h"

enum { MAX_BURST = 64, MAX_FLOWS = 4096, MAX_PAYLOAD = 1472 };

static int open_flow(const char *address, int port, int source_port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons((uint16_t)source_port)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0)
        fail("socket");
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1) {
        errno = EINVAL;
        fail(address);
    }
    if (bind(fd, (struct sockaddr *)&from, sizeof from))
        fail("bind");
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        fail(address);
    return fd;
}

static struct mmsghdr messages[MAX_BURST];
static unsigned burst = 16;
static int flows[MAX_FLOWS];
static int flow_count = 64;

/* Sends up to `limit` datagrams on the next flow. A full socket or an ICMP error costs the rest of a burst. */
static uint64_t send_burst(uint64_t limit) {
    static int turn;
    unsigned wanted = limit < burst ? (unsigned)limit : burst;
    int sent = sendmmsg(flows[turn], messages, wanted, 0);
    turn = (turn + 1) % flow_count;
    if (sent < 0 && errno != ECONNREFUSED && errno != EHOSTUNREACH && errno != ENOBUFS && errno != EAGAIN)
        fail("sendmmsg");
    return sent < 0 ? 0 : (uint64_t)sent;
}

static uint64_t send_until(double end, uint64_t count, double rate) {
    double start = now();
    uint64_t sent = 0;
    while (sent < count) {
        if (rate > 0)
            sleep_until(start + (double)sent / rate);
        if (now() >= end)
            break;
        sent += send_burst(count - sent);
    }
    return sent;
}

int main(int argc, char **argv) {
    static char payload[MAX_PAYLOAD];
    struct iovec data = {.iov_base = payload, .iov_len = 18};
    int port = 0, source_port = 20000, option;
    double rate = 0, warm = 0, seconds = 0, begin;
    uint64_t count = 0, sent;
    while ((option = getopt(argc, argv, "p:f:l:s:r:b:n:w:d:")) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'f': flow_count = atoi(optarg); break;
        case 'l': data.iov_len = strtoul(optarg, NULL, 10); break;
        case 's': source_port = atoi(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'b': burst = (unsigned)atoi(optarg); break;
        case 'n': count = strtoull(optarg, NULL, 10); break;
        case 'w': warm = atof(optarg); break;
        case 'd': seconds = atof(optarg); break;
        default: return 2;
        }
    }
    if (!port || optind >= argc || (!count && seconds <= 0) || flow_count < 1 || flow_count > MAX_FLOWS ||
        data.iov_len > MAX_PAYLOAD || burst < 1 || burst > MAX_BURST) {
        fputs("usage: blast -p PORT [-f FLOWS] [-l PAYLOAD] [-s SOURCE_PORT] [-r RATE] [-b BURST]"
              " (-n COUNT | [-w WARM] -d SECONDS) ADDRESS...\n", stderr);
        return 2;
    }
    for (int i = 0; i < MAX_BURST; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &data, .msg_iovlen = 1};
    for (int i = 0; i < flow_count; i++)
        flows[i] = open_flow(argv[optind + i % (argc - optind)], port, source_port + i);
    if (warm > 0)
        send_until(now() + warm, UINT64_MAX, rate);
    puts("begin");
    fflush(stdout);
    begin = now();
    sent = send_until(count ? begin + 60 : begin + seconds, count ? count : UINT64_MAX, rate);
    printf("end %llu %.6f\n", (unsigned long long)sent, now() - begin);
    return 0;
}
