// Reads JSON's numbers (RFC 8259), correctly rounded.
//
// A decimal of at most 19 digits w * 10^e with w <= 2^53 and |e| <= 22 is exact in one
// multiplication or division (Clinger, "How to Read Floating Point Numbers Accurately", 1990); the
// others go to std::from_chars, which rounds correctly.

#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <system_error>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

constexpr double kPowersOfTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr uint64_t kIntegerPowersOfTen[] = {1,       10,        100,        1'000,    10'000,
                                            100'000, 1'000'000, 10'000'000, 100'000'000};
constexpr double kSigns[] = {1.0, -1.0};
constexpr int kExactPower = 22;
constexpr int kExactDigits = 19;
constexpr uint64_t kExactInteger = uint64_t{1} << 53;
// How many bytes are looked at together for the ends of numbers.
constexpr int kBlock = 64;
// So many bytes past what is read may be looked at.
constexpr size_t kAhead = kBlock;

// -- eight bytes at once ------------------------------------------------------------------------

constexpr uint64_t kOnes = 0x0101010101010101;
constexpr uint64_t kHighBits = kOnes << 7;

// The first byte is the lowest.
inline uint64_t load_eight(const char* at) {
  uint64_t bytes;
  std::memcpy(&bytes, at, sizeof bytes);
  if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__) bytes = __builtin_bswap64(bytes);
  return bytes;
}

// The high bit of each byte that is more than 9.
inline uint64_t no_digits(uint64_t values) {
  return ((values + kOnes * (0x7F - 9)) | values) & kHighBits;
}

// The number that eight digits are, the first of them the lowest byte (Lemire, "Number Parsing at a
// Gigabyte per Second", 2021).
inline uint64_t number_of(uint64_t digits) {
  digits = digits * 10 + (digits >> 8);
  return ((digits & 0x000000FF000000FF) * 0x000F424000000064 +
          ((digits >> 16) & 0x000000FF000000FF) * 0x0000271000000001) >> 32;
}

// The bits of the places in the block where `byte` is.
inline uint64_t places_of(const char* block, char byte) {
  uint64_t places = 0;
#ifdef __SSE2__
  const __m128i wanted = _mm_set1_epi8(byte);
  for (int i = 0; i < kBlock; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + i));
    const int found = _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, wanted));
    places |= static_cast<uint64_t>(found) << i;
  }
#else
  for (int i = 0; i < kBlock; i += 8) {
    const uint64_t others = load_eight(block + i) ^ (kOnes * static_cast<unsigned char>(byte));
    const uint64_t found = ~(((others & ~kHighBits) + ~kHighBits) | others) & kHighBits;
    places |= ((found >> 7) * 0x0102040810204080 >> 56) << i;
  }
#endif
  return places;
}

// -- numbers ------------------------------------------------------------------------------------

inline bool is_digit(char byte) { return byte >= '0' && byte <= '9'; }

struct Number {
  double real;
  int64_t integer;
  bool is_integer;  // written without a fraction or exponent, and within 64 bits
};

// Exact up to 2^53. A sign is as good as random, so nothing branches on it; a signed integer becomes
// a double in one instruction.
inline double signed_real(uint64_t digits, bool negative) {
  return static_cast<double>(static_cast<int64_t>(digits)) * kSigns[negative];
}

// `count` digits from 1 to 8; false where there are others among them.
inline bool take_some(const char* at, int count, uint64_t& digits) {
  const uint64_t values = (load_eight(at) ^ (kOnes * '0')) << (64 - 8 * count);
  digits = digits * kIntegerPowersOfTen[count] + number_of(values);
  return no_digits(values) == 0;
}

// A number from `at` to `stop` of one digit, or with one digit before its point and 1 to 16 after it,
// as most features are; false for all else, numbers or not.
inline bool read_decimal(const char* at, const char* stop, double& real) {
  if (*at == ' ') ++at;
  const bool negative = *at == '-';
  at += negative;
  uint64_t digits = static_cast<unsigned char>(*at - '0');
  const auto places = static_cast<int>(stop - at) - 2;
  if (digits > 9 || places > 16) return false;
  if (places < 1) {
    real = signed_real(digits, negative);
    return places == -1;
  }
  if (at[1] != '.') return false;
  if (!take_some(at + 2, places < 8 ? places : 8, digits)) return false;
  if (places > 8 && !take_some(at + 10, places - 8, digits)) return false;
  if (digits > kExactInteger) return false;
  real = signed_real(digits, negative) / kPowersOfTen[places];
  return true;
}

// All digits after a point; more than 19 of a number leave no meaning in `digits`. Where they end
// is found without a branch for each, which a processor could not predict.
inline ptrdiff_t take_places(const char*& at, const char* end, uint64_t& digits) {
  const char* first = at;
  while (end - at >= 8) {
    const uint64_t others = no_digits(load_eight(at) ^ (kOnes * '0'));
    const int count = others == 0 ? 8 : __builtin_ctzll(others) >> 3;
    if (count == 0) return at - first;
    take_some(at, count, digits);
    at += count;
    if (count < 8) return at - first;
  }
  while (is_digit(*at)) digits = digits * 10 + static_cast<uint64_t>(*at++ - '0');
  return at - first;
}

inline const char* read_number(const char* at, const char* end, Number& number) {
  const char* begin = at;
  const bool negative = *at == '-';
  at += negative;
  const char* first = at;
  uint64_t digits = 0;
  while (is_digit(*at)) digits = digits * 10 + static_cast<uint64_t>(*at++ - '0');
  auto count = at - first;
  if (count == 0 || (*first == '0' && count > 1)) return nullptr;
  int64_t exponent = 0;
  bool whole = true;
  if (*at == '.') {
    whole = false;
    ++at;
    const ptrdiff_t places = take_places(at, end, digits);
    if (places == 0) return nullptr;
    exponent = -places;
    count += places;
  }
  if (*at == 'e' || *at == 'E') {
    whole = false;
    ++at;
    const bool down = *at == '-';
    if (*at == '-' || *at == '+') ++at;
    if (!is_digit(*at)) return nullptr;
    int64_t power = 0;
    // Beyond any double's range it only has to stay that.
    while (is_digit(*at)) power = power < 100'000 ? power * 10 + (*at - '0') : power, ++at;
    exponent += down ? -power : power;
  }
  number.is_integer = whole && count <= kExactDigits && digits <= INT64_MAX;
  if (number.is_integer) {
    const auto value = static_cast<int64_t>(digits);
    number.integer = negative ? -value : value;
  }
  if (count <= kExactDigits && digits <= kExactInteger && -kExactPower <= exponent &&
      exponent <= kExactPower) {
    const double value = signed_real(digits, negative);
    number.real = exponent < 0 ? value / kPowersOfTen[-exponent] : value * kPowersOfTen[exponent];
    return at;
  }
  const auto [stop, error] = std::from_chars(begin, at, number.real);
  return error == std::errc() && stop == at ? at : nullptr;
}
